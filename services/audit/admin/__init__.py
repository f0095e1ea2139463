"""The operators' API over the read model and the orders."""
