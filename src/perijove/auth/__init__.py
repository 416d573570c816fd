"""Ways to prove who one is: one contract, one module for each way."""
