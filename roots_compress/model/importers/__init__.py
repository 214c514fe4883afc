"""model/importers"""
