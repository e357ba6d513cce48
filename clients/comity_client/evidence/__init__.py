"""What nodes say of an artifact: all are asked, it is proven by the pins, and held against what was seen before."""
