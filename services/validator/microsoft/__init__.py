"""Client of Microsoft's APIs for third-party CAs: tokens, Graph, and Intune's services."""
