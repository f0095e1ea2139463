"""The page that operators work on: HTML made here, and a little script."""
