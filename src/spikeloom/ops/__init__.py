"""Pure tensor functions without parameters. `naive` forms are the specification."""
