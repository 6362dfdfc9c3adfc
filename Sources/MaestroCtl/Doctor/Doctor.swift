import Glibc
import JobModel
import JobTransport
import NATSClient
import ServiceSupport

/// Looks at a whole pool: server, streams, consumers, records, workers, maestro, and this machine's disks.
struct Doctor: Sendable {
    let client: PoolClient
    let journal: SubmissionJournal?
    /// Where the server's monitoring port is; nil to try its usual place.
    let monitorURL: String?
    /// Where the server's store is on this machine; nil to ask the monitoring port.
    let store: String?
    /// How long something may be under way before it counts, in seconds.
    let patience: Double

    /// Looks at everything.
    /// - Throws: when there is no JetStream to look at, or the server falls silent.
    func examine() async throws -> Diagnosis {
        let names = client.names
        let now = WallClock.now()
        var pool = PoolFacts()
        pool.patience = patience
        do {
            try await ServerExam.gather(client, monitorURL: monitorURL, &pool)
            try await StreamExam.gather(client, &pool)
            let maestro = try await MaestroExam.gather(client, &pool, now: now)
            let unreadable = try await WorkerExam.gather(client, &pool, now: now)
            let consumers = try await ConsumerExam.gather(client, pool, now: now)
            let records = try await RecordExam.gather(client, pool, now: now)
            let runs = try await RunExam.gather(client, pool)
            let disk = try DiskExam.gather(pool, journal, store: store, isServerHere: isServerHere, now: now)

            let replicas = StreamExam.replicas(pool)
            var diagnosis = Diagnosis()
            let url = client.connection.serverInfo?.url ?? ""
            let horizon = client.settings[PoolKeys.idHorizon]
            diagnosis.note(
                .server,
                ServerExam.summary(pool, url: url),
                ServerExam.judge(pool, replicas: replicas)
            )
            diagnosis.note(.streams, StreamExam.summary(pool), StreamExam.judge(pool, names))
            diagnosis.note(
                .consumers,
                ConsumerExam.summary(consumers),
                ConsumerExam.judge(consumers, pool, names, now: now)
            )
            diagnosis.note(
                .records,
                RecordExam.summary(records),
                RecordExam.judge(records, pool, now: now)
                    + RunExam.judge(runs, records, pool, horizon: horizon, now: now)
            )
            diagnosis.note(.workers, WorkerExam.summary(pool, now: now), WorkerExam.judge(pool, unreadable, now: now))
            diagnosis.note(.maestro, MaestroExam.summary(pool, maestro), MaestroExam.judge(maestro, pool))
            diagnosis.note(.disk, DiskExam.summary(disk), DiskExam.judge(disk, pool))
            return diagnosis
        } catch {
            throw PoolClient.failure(error, "the examination")
        }
    }

    /// The server that this program is connected to runs on this machine.
    private var isServerHere: Bool {
        guard let url = client.connection.serverInfo?.url else { return false }
        do {
            let host = try ServerURL(url).endpoint.host
            return ["127.0.0.1", "::1", "localhost", HostInfo.name].contains(host)
        } catch {
            return false
        }
    }
}
