"""The contenders, one a file: `products(settings)` by kind, perhaps `eigenvalues`, `density`.

A product is a function of a vector (n,). `eigenvalues(settings)` returns the five largest ones and
how many products with the Hessian they took, `density(settings)` the largest node and the same.
What a contender does not have, it leaves out. A name with `+tuned` is that contender in a process
whose allocator keeps what is freed (`rounds.TUNED`).
"""
