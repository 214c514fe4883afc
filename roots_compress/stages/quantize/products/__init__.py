"""The choice between integer and float products of int8 weights, by timing."""
