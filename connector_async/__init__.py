"""The asyncio client for the Connector API (names arrive with the parts)."""
