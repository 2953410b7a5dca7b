"""How the networks' recurrences, products and losses are computed on each device."""
