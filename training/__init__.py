"""From recorded decisions to a verified model bundle. LightGBM and MLflow live here."""
