"""From the lake to online rows and contact histories: compute, push, refresh, rebuild."""
