"""The verified model bundle, the compiled forest, the registry on MLflow."""
