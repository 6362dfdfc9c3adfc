import JobModel
import JobTransport
import NATSClient
import ServiceSupport

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
        do {
            try connection.start()
            try await connection.waitUntilConnected(deadline: patience)
        } catch {
            await connection.close()
            throw await explain(settings)
        }
    }

    /// Why there is no connection.
    private static func explain(_ settings: Settings) async -> FatalError {
        let urls = settings[CommonKeys.natsURL]
        let place = "\(urls.map(\.description).joined(separator: ",")) (\(settings.origin(of: CommonKeys.natsURL)))"
        switch await ServerProbe.look(at: urls.first ?? .local) {
        case .wantsCredentials:
            return FatalError(
                .credentials,
                "the server at \(place) refuses these credentials: put user and password into NATS_URL, or name a "
                    + "file with NATS_CREDS or NATS_NKEY_SEED_FILE"
            )
        case .wantsTLS:
            return FatalError(
                .unavailable,
                "the server at \(place) speaks only TLS and could not be agreed with: write tls://host, name its "
                    + "certificate authority in NATS_TLS_CA if it is not a public one, and see that it knows this key "
                    + "(NATS_NKEY_SEED_FILE, NATS_NKEY_PUBLIC; maestro-keys list)"
            )
        case .notNATS: return FatalError(.unavailable, "what answers at \(place) is not a NATS server")
        case .open: return FatalError(.unavailable, "the server at \(place) did not answer in time; try again")
        case .unreachable(let why):
            return FatalError(
                .unavailable,
                "no server answers at \(place): \(why). Name one with --server URL or NATS_URL, or start a pool here "
                    + "with: maestroctl up"
            )
        }
    }

    func close() async { await connection.close() }

    /// Makes sure that the pool's streams are there, so that what is asked of them next gets an answer.
    func requirePool() async throws(FatalError) {
        for stream in [names.workQueueStream, names.jobsStream] {
            do {
                try await requireStream(stream)
            } catch {
                throw Self.failure(error, "stream \(stream)")
            }
        }
    }

    /// A cluster that lost a server answers nothing of a stream until another one leads it.
    private func requireStream(_ stream: String) async throws(JetStreamError) {
        let end = ContinuousClock.now + Self.election
        while true {
            do throws(JetStreamError) {
                _ = try await jetStream.streamInfo(stream)
                return
            } catch {
                guard Self.mayPass(error), ContinuousClock.now < end, !Task.isCancelled else { throw error }
            }
            await Pause.afterFailure()
        }
    }

    /// How long the streams of a cluster may be without a leader before a command gives up.
    private static let election = Duration.seconds(20)

    private static func mayPass(_ error: JetStreamError) -> Bool {
        switch error {
        case .refused(let error): error.isUnavailable
        case .unknown(let cause): cause.code == .timeout
        default: false
        }
    }

    /// The record of a job; the program ends with "no such job" if there is none.
    func record(_ job: JobID) async throws -> StoredRecord {
        do {
            if let record = try await records.read(job) { return record }
        } catch {
            throw Self.failure(error, "the record of \(job)")
        }
        throw Self.noSuchJob(job)
    }

    static func noSuchJob(_ job: JobID) -> FatalError {
        FatalError(.notFound, "there is no job \(job) (a job just submitted is known when a maestro admitted it)")
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
            if code == "unknown_job" { return FatalError(.notFound, reason) }
            let isMissing = ["unknown_job", "unknown_card", "ambiguous_card"].contains(code)
            return FatalError(isMissing ? .notFound : .failure, "\(what): \(reason)")
        case let error as NATSError where error.code == .notPermitted:
            return FatalError(.credentials, "\(what): \(error)")
        default: return FatalError(.unavailable, "\(what): \(error)")
        }
    }
}
