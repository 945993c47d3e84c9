"""The pages at /docs: the API reference, rendered from openapi.yaml, and the guides."""

from service.http.docs.pages import CSP, GUIDES, guide_page, openapi_text, reference_page, served_page

__all__ = ["CSP", "GUIDES", "guide_page", "openapi_text", "reference_page", "served_page"]
