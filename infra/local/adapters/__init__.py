"""What Pulumi's released language host and provider plugins do, where they cannot be had.

`bin/` holds the executables that the engine looks for on PATH; each starts one module of this
package with the checkout's Python.
"""
