"""The contenders, one a file: `products(settings)` by kind, and perhaps `eigenvalues(settings)`.

A product is a function of a vector (n,). `eigenvalues` returns the five largest ones and how many
products with the Hessian they took. What a contender does not have, it leaves out.
"""
