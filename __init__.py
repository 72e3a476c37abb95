"""Loss surfaces, Hessian spectra and optimiser comparisons for PyTorch networks."""
