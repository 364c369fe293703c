"""Who asks as whom: challenges, tokens, credentials and where they are kept."""
