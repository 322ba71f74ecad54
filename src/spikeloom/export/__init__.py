"""What leaves the house: checkpoints made to be shipped, and the cards that describe them."""
