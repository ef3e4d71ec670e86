"""The application: from a configuration to trained models, tables and figures."""
