"""The API contract: operations, examples, and the OpenAPI document made from them."""
