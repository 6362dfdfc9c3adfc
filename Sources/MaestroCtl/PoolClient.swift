import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import Synchronization

/// A pool as a command sees it.
struct PoolClient: Sendable {
    let settings: Settings
    let names: PoolNames
    let connection: NATSConnection
    let jetStream: JetStream
    let records: RecordStore
    let api: MaestroAPI

    /// How long a command waits for a server that does not answer.
    static let patience = Duration.seconds(3)

    init(settings: Settings, patience: Duration = Self.patience) async throws(FatalError) {
        self.settings = settings
        do {
            names = try settings.poolNames()
        } catch {
            throw FatalError(error)
        }
        do {
            connection = try NATSConnection(options: settings.connectionOptions(name: "maestroctl"))
        } catch {
            throw FatalError(.configuration, "\(error)")
        }
        jetStream = JetStream(connection)
        records = RecordStore(jetStream, names: names)
        api = MaestroAPI(connection, names: names)
        try await Self.open(connection, settings, patience)
    }

    private static func open(
        _ connection: NATSConnection,
        _ settings: Settings,
        _ patience: Duration
    ) async throws(FatalError) {
        let refusal = Mutex<NATSError?>(nil)
        let watch = connection.addObserver { event in
            guard case .asyncError(let error) = event, error.code == .authentication else { return }
            refusal.withLock { $0 = error }
        }
        defer { watch.cancel() }
        do {
            try connection.start()
            try await connection.waitUntilConnected(deadline: patience)
        } catch {
            let urls = settings[CommonKeys.natsURL].map(\.description).joined(separator: ",")
            if refusal.withLock({ $0 }) != nil || error.description.contains("authentication") {
                throw FatalError(.credentials, "the server \(urls) refuses these credentials")
            }
            let origin = settings.origin(of: CommonKeys.natsURL)
            throw FatalError(
                .unavailable,
                "no server answers at \(urls) (\(origin)): name one with --server URL or NATS_URL, or start a pool "
                    + "here with: maestroctl up"
            )
        }
    }

    func close() async { await connection.close() }

    /// The record of a job; the program ends with "no such job" if there is none.
    func record(_ job: JobID) async throws -> StoredRecord {
        do {
            if let record = try await records.read(job) { return record }
        } catch {
            throw Self.failure(error, "the record of \(job)")
        }
        throw FatalError(.notFound, "there is no job \(job) (a job just submitted is known when a maestro admitted it)")
    }

    /// What a failed request means for a person.
    /// - Parameter what: what was asked for: "the record of x".
    static func failure(_ error: any Error, _ what: String) -> FatalError {
        switch error {
        case let error as FatalError: return error
        case JetStreamError.refused(let refusal) where refusal.isStreamNotFound:
            return FatalError(
                .unavailable,
                "\(what): this server holds no pool yet; start a maestro, or check STREAM_PREFIX (\(refusal))"
            )
        case JetStreamError.unknown(let cause) where cause.code == .noResponders:
            return FatalError(
                .unavailable,
                "\(what): JetStream is off on this server; start nats-server with -js, or use `maestroctl up`"
            )
        case MaestroAPIError.refused(let code, let reason):
            return FatalError(code == "unknown_job" ? .notFound : .failure, "\(what): \(reason)")
        case let error as NATSError where error.code == .notPermitted:
            return FatalError(.credentials, "\(what): \(error)")
        default: return FatalError(.unavailable, "\(what): \(error)")
        }
    }
}
