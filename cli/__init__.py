"""The scepstream command line."""
