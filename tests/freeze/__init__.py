"""A record of every number that the stages give, to show that a change of the code changes none of them."""
