import NATSClient
import ServiceSupport

extension Settings {
    /// How to reach the bus, by the keys that all programs share.
    /// - Parameter name: what the server shows this client as.
    package func connectionOptions(name: String) -> NATSConnectionOptions {
        var options = NATSConnectionOptions(urls: self[CommonKeys.natsURL].map(\.text), name: name)
        options.credentialsFile = self[CommonKeys.natsCredentials]
        options.nkeySeedFile = self[CommonKeys.natsNKeySeedFile]
        options.nkeyPublicKey = self[CommonKeys.natsNKeyPublic]
        let needsTLS = [CommonKeys.natsCA, CommonKeys.natsCertificate].contains { self[$0] != nil }
        if needsTLS {
            var tls = NATSTLSOptions()
            tls.caFile = self[CommonKeys.natsCA]
            tls.certificateFile = self[CommonKeys.natsCertificate]
            tls.keyFile = self[CommonKeys.natsKey]
            options.tls = tls
        }
        return options
    }
}
