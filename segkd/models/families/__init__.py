"""One file a family of networks: how it is built, its size rule and its head."""
