"""The OpenAPI document of the gateway.

It is generated from the routes of the application, the schemas of bodies and configs,
the tree of errors, and the providers and their settings. This package is imported on
the first request for the document: apispec would cost every worker memory otherwise.

Source: https://spec.openapis.org/oas/v3.1.1.html
"""
