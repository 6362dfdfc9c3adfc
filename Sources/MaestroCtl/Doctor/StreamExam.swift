import JobModel
import JobTransport
import NATSClient
import WireJSON

/// The six streams: there, as they must be, with room, and with all their copies.
enum StreamExam {
    static func gather(_ client: PoolClient, _ facts: inout PoolFacts) async throws {
        for (name, _) in StreamsCommand.streams(client.names) {
            let info = try await StreamsCommand.info(name, client)
            facts.streams[name] = info
        }
    }

    /// The most copies that any of the streams has.
    static func replicas(_ facts: PoolFacts) -> Int {
        facts.streams.values.map { Int($0.config["num_replicas"]?.intValue ?? 1) }.max() ?? 1
    }

    static func judge(_ facts: PoolFacts, _ names: PoolNames) -> [Finding] {
        let pool = PoolStreams(names: names, limits: .standard)
        guard !facts.streams.isEmpty else { return [noPool(names, facts)] }
        var findings: [Finding] = []
        for (name, purpose) in StreamsCommand.streams(names) {
            guard let info = facts.streams[name] else {
                findings.append(missing(name, purpose, facts))
                continue
            }
            if let problem = pool.problem(in: info) {
                findings.append(
                    Finding(
                        .streams,
                        .error,
                        "stream_differs",
                        "\(name) is not as it must be",
                        evidence: problem,
                        advice: "change it back (nats stream edit \(name)); a maestro does not lead with such a stream"
                    )
                )
            }
            if let fullness = judgeFill(info, purpose) { findings.append(fullness) }
            findings += judgeCopies(info)
        }
        return findings
    }

    private static func noPool(_ names: PoolNames, _ facts: PoolFacts) -> Finding {
        Finding(
            .streams,
            .error,
            "no_pool",
            "this server holds no pool",
            evidence: "none of its streams exists: \(StreamsCommand.streams(names).map(\.name).joined(separator: " "))",
            advice: facts.leader == nil
                ? "start a maestro: it makes them (or is STREAM_PREFIX another?). If there was a pool, its disk is lost: "
                    + "then maestroctl reconcile"
                : "restart maestro: it makes them anew. What they held is gone; then maestroctl reconcile"
        )
    }

    private static func missing(_ name: String, _ purpose: String, _ facts: PoolFacts) -> Finding {
        Finding(
            .streams,
            .error,
            "stream_missing",
            "\(name) (\(purpose)) does not exist",
            evidence: "others of the pool's streams are there",
            advice: facts.leader == nil
                ? "start a maestro: it makes them (or is STREAM_PREFIX another?)"
                : "restart maestro: it makes the stream anew. What it held is gone; maestroctl reconcile brings back what "
                    + "was submitted from here"
        )
    }

    private static func judgeFill(_ info: StreamInfo, _ purpose: String) -> Finding? {
        // The others let their oldest go.
        guard info.config["discard"]?.stringValue == "new" else { return nil }
        guard (info.config["max_bytes"]?.intValue ?? -1) > 0 else {
            return Finding(
                .streams,
                .warning,
                "stream_unbounded",
                "\(info.name) has no limit: it can fill the server's disk",
                evidence: "max_bytes is not set",
                advice: "nats stream edit \(info.name) --max-bytes=…, below what the disk has"
            )
        }
        guard let share = StreamsCommand.share(info), share >= 0.8 else { return nil }
        return Finding(
            .streams,
            share >= 0.95 ? .error : .warning,
            "stream_full",
            "\(info.name) (\(purpose)) is \(Printable.fixed(share * 100, 0)) % full",
            evidence:
                "\(info.messages) messages, \(Printable.bytes(info.bytes)); when it is full it refuses what comes",
            advice: "let jobs end, keep ended ones for less long (KEEP_DONE_HOURS, KEEP_DONE_MAX), or raise its limit: "
                + "nats stream edit \(info.name) --max-bytes=…"
        )
    }

    private static func judgeCopies(_ info: StreamInfo) -> [Finding] {
        let wanted = Int(info.config["num_replicas"]?.intValue ?? 1)
        guard wanted > 1, let cluster = info.cluster else { return [] }
        var findings: [Finding] = []
        if cluster["leader"]?.stringValue?.isEmpty != false {
            findings.append(
                Finding(
                    .streams,
                    .error,
                    "stream_leaderless",
                    "\(info.name) has no leader: nothing can be written to it",
                    evidence: "fewer than half of its \(wanted) copies can be reached",
                    advice: "bring the cluster's servers back"
                )
            )
        }
        for replica in cluster["replicas"]?.arrayValue ?? [] {
            let isOffline = replica["offline"]?.boolValue ?? false
            guard isOffline || replica["current"]?.boolValue == false else { continue }
            findings.append(
                Finding(
                    .streams,
                    .warning,
                    "replica_behind",
                    "a copy of \(info.name) is \(isOffline ? "gone" : "behind")",
                    evidence: "on \(replica["name"]?.stringValue ?? "?"), lag \(replica["lag"]?.intValue ?? 0)",
                    advice: "bring that server back: with one more loss the stream stops"
                )
            )
        }
        return findings
    }

    static func summary(_ facts: PoolFacts) -> String {
        let fullest = facts.streams.values.filter { $0.config["discard"]?.stringValue == "new" }
            .compactMap { info in StreamsCommand.share(info).map { (info.name, $0) } }
            .max { ($0.1, $1.0) < ($1.1, $0.0) }
        let words = fullest.map { ", the fullest is \($0.0) with \(Printable.fixed($0.1 * 100, 0)) %" } ?? ""
        return "\(facts.streams.count) of 6 streams\(words)"
    }
}
