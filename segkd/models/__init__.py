"""Networks: teachers and students behind one size rule, and the taps that listen to them."""
