"""What ships: a student's folder and its model card, loaded again as it was saved."""
