"""What the gateway takes and answers, as an OpenAPI document.

It is made of what the code knows anyway: the routes of the application, the schemas of
bodies and configs, the tree of errors, the providers and their settings. Nothing here
is loaded before somebody asks for it: apispec would cost every worker memory at rest.

Source: https://spec.openapis.org/oas/v3.1.1.html
"""
