"""The built-in tasks: one module, one task; modules with a leading underscore are shared by several."""
