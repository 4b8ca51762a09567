"""The document of `/openapi.json`: schemas of the bodies, narrowed to what a workspace allows."""
