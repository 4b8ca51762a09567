"""The ASGI application: admission, authentication, CORS, strict JSON, problems, routing."""
