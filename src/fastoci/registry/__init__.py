"""The network: registries, their connections and logins."""
