"""What is on disk: files, runs, surfaces, spectra, what identifies them. Free of torch."""
