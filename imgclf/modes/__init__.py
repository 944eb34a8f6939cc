"""What launch.py can do: a mode is a file of the same name, with one public `run`.

The same functions are `imgclf.train`, `imgclf.evaluate` and `imgclf.predict`; they live in a
package of their own because a module and a function can't both be `imgclf.train`.
"""
