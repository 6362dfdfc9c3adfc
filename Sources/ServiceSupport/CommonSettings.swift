import JobModel
import Logging

/// The keys that every program of a pool knows.
package enum CommonKeys {
    package static let natsURL = SettingKey<[ServerURL]>.serverURLs(
        "NATS_URL",
        default: [.local],
        help: "addresses of the NATS servers of one cluster, between commas"
    )
    package static let natsCredentials = SettingKey<String?>.optionalPath(
        "NATS_CREDS",
        help: "a credentials file as nsc makes it"
    )
    package static let natsNKeySeedFile = SettingKey<String?>.optionalPath(
        "NATS_NKEY_SEED_FILE",
        help: "a file with an NKey seed; needs NATS_NKEY_PUBLIC"
    )
    package static let natsNKeyPublic = SettingKey<String?>.optionalText(
        "NATS_NKEY_PUBLIC",
        form: "a public NKey (U...)",
        help: "the public NKey that belongs to the seed",
        check: { $0.hasPrefix("U") ? nil : "is not a public NKey of a user: it begins with U" }
    )
    package static let natsCA = SettingKey<String?>.optionalPath(
        "NATS_TLS_CA",
        help: "certificates to trust, a PEM file; makes the connection encrypted"
    )
    package static let natsCertificate = SettingKey<String?>.optionalPath(
        "NATS_TLS_CERT",
        help: "this program's certificate, a PEM file; needs NATS_TLS_KEY"
    )
    package static let natsKey = SettingKey<String?>.optionalPath(
        "NATS_TLS_KEY",
        help: "the key of this program's certificate, a PEM file"
    )
    package static let logLevel = SettingKey<Logger.Level>(
        "LOG_LEVEL",
        form: "one of \(Logger.Level.allCases.map(\.rawValue).joined(separator: " "))",
        default: .info,
        text: "info",
        help: "the least important messages to log: trace, debug, info, notice, warning, error or critical",
        parse: { text throws(SettingProblem) in
            guard let level = Logger.Level(rawValue: text.lowercased()) else {
                let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: " ")
                throw SettingProblem("\(quoted(text)) is not one of \(levels)")
            }
            return level
        }
    )

    /// Of maestro and gpu-worker; not among ``all``.
    package static let dayWindow = SettingKey<DayWindow>(
        "DAY_WINDOW",
        form: "two hours such as 07-22",
        default: .standard,
        text: "07-22",
        help:
            "the hours of this machine's time that are day; a message on circadian.phase overrides it until it changes",
        parse: { text throws(SettingProblem) in
            guard let window = DayWindow(text) else {
                throw SettingProblem("\(quoted(text)) is not two different hours such as 07-22")
            }
            return window
        }
    )

    /// All keys of this file and of ``PoolKeys``, for a schema.
    package static let all: [SettingDeclaration] =
        [
            natsURL.declaration, natsCredentials.declaration, natsNKeySeedFile.declaration,
            natsNKeyPublic.declaration, natsCA.declaration, natsCertificate.declaration, natsKey.declaration,
            logLevel.declaration,
        ] + PoolKeys.all
}

extension Settings {
    /// Checks the keys of the connection that need one another.
    package func checkConnection() throws(SettingsError) {
        typealias Keys = CommonKeys
        if self[Keys.natsNKeySeedFile] != nil, self[Keys.natsNKeyPublic] == nil {
            throw error(Keys.natsNKeySeedFile, "a seed needs NATS_NKEY_PUBLIC, the public key that belongs to it")
        }
        if self[Keys.natsNKeyPublic] != nil, self[Keys.natsNKeySeedFile] == nil {
            throw error(Keys.natsNKeyPublic, "a public key needs NATS_NKEY_SEED_FILE, the file with its seed")
        }
        if (self[Keys.natsCertificate] == nil) != (self[Keys.natsKey] == nil) {
            let given = self[Keys.natsCertificate] != nil ? Keys.natsCertificate : Keys.natsKey
            throw error(given, "NATS_TLS_CERT and NATS_TLS_KEY are needed together")
        }
    }
}
