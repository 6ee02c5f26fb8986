"""Names, labels and bytes of a run: where artifacts live, how they are written and named.

No numerics here; the labelled `xarray.Dataset` is the language spoken with the rest of the house.
"""
