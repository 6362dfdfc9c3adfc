import JobModel
import JobTransport
import NATSClient
import WireJSON

/// What the examinations of a pool share: each thing is asked for once.
struct PoolFacts: Sendable {
    var servers: [ServerFact] = []
    var account: JSON = .null
    var monitor: ServerMonitor?
    /// The streams that exist.
    var streams: [String: StreamInfo] = [:]
    /// The leader's answer; nil when nobody leads.
    var leader: MaestroAPI.Status?
    var registrations: [GPUID: WorkerRegistration] = [:]
    /// What was heard of workers in the last ``lookback``.
    var heard: [Incarnation: HeardWorker] = [:]
    /// The version that each card's worker told when it began.
    var workerVersions: [GPUID: String] = [:]
    /// The server's clock less ours, in seconds.
    var clockOffset = 0.0
    /// How long whoever has to act may take before it is told, in seconds.
    var patience = 60.0

    /// A worker that was not heard for this long is silent: some heartbeats of the usual pace.
    var silence: Double { patience / 2 }
    /// How long a scheduled attempt may be without its message: longer than the leader waits for a claim.
    var claimPatience: Double { patience * 2 }
    /// How far back heartbeats are looked for.
    var lookback: Double { max(120, patience * 2) }

    /// Nanoseconds since 1970 by the server's clock.
    func serverTime(_ now: Double) -> Double { now + clockOffset }

    /// How long ago the server stored a message, in seconds.
    func age(_ timestamp: Int64, now: Double) -> Double { serverTime(now) - Double(timestamp) / 1e9 }

    func isHeard(_ incarnation: Incarnation?, now: Double) -> Bool {
        guard let worker = incarnation.flatMap({ heard[$0] }) else { return false }
        return age(worker.timestamp, now: now) < silence
    }
}

/// A server as it describes itself.
struct ServerFact: Sendable, Equatable {
    let name: String
    let id: String
    let version: String
    let hasJetStream: Bool
    /// Its clock less ours, in seconds; nil when it tells no time.
    let clockOffset: Double?

    func isAtLeast(_ major: Int, _ minor: Int) -> Bool {
        ServerSoftware(name: name, version: version, hasJetStream: hasJetStream).isAtLeast(major, minor)
    }
}

/// The last heartbeat of a worker's life.
struct HeardWorker: Sendable, Equatable {
    let heartbeat: Heartbeat
    /// When the server stored it, nanoseconds since 1970.
    let timestamp: Int64

    /// The worker's clock less the server's, in seconds.
    var clockOffset: Double { heartbeat.time - Double(timestamp) / 1e9 }
}
