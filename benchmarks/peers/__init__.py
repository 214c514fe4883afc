"""Other tools' engines and this project's, measured side by side on one checkpoint."""
