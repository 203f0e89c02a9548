"""Decodes media files, in bounded memory whatever they declare, into what models read: frames, sound and flow."""
