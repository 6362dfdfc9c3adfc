import Logging
import NATSClient
import ServiceSupport

/// The wait of a service for its server: for ever while nobody is there, not at all where it is not let in.
package struct ServerWait: Sendable {
    private let connection: NATSConnection
    private let urls: [ServerURL]
    private let logger: Logger

    package init(_ connection: NATSConnection, settings: Settings, logger: Logger) {
        self.connection = connection
        urls = settings[CommonKeys.natsURL]
        self.logger = logger
    }

    /// Returns when there is a connection; says every ten seconds why there is none.
    /// - Throws: ``FatalError`` when the server refuses this program's credentials; `CancellationError`.
    package func reach() async throws {
        while true {
            try Task.checkCancellation()
            do throws(NATSError) {
                return try await connection.waitUntilConnected(deadline: .seconds(10))
            } catch {
                try Task.checkCancellation()
                try await explain()
            }
        }
    }

    private func explain() async throws {
        let list = urls.map(\.description).joined(separator: ",")
        guard let first = urls.first else { return }
        let finding = await ServerProbe.look(at: first)
        if finding == .wantsCredentials {
            throw FatalError(
                .credentials,
                "the NATS server at \(list) refuses these credentials; set NATS_CREDS, or NATS_NKEY_SEED_FILE and "
                    + "NATS_NKEY_PUBLIC, or put user and password into NATS_URL"
            )
        }
        logger.warning(
            "no NATS server yet; is it running, and is NATS_URL right?",
            metadata: [
                "NATS_URL": "\(list)", "found": "\(finding)",
            ]
        )
    }
}
