"""lenext"""
