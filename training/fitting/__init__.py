"""Fit, calibrate and evaluate models with LightGBM and scikit-learn."""
