"""What people touch: the command, batches, pages to compare pictures, the Pillow plugin.

May import everything below; nothing below imports it.
"""
