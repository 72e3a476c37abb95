"""The contenders, each a function of a `Plane` that returns the loss as a function of (x, y)."""
