import JobModel
import WireJSON

/// One placement: which card a job got, and what was known of the others. For a log, and for those who check the rules.
package struct Decision: Sendable, Equatable {
    package var job: JobID
    package var attempt: AttemptID
    package var gpu: GPUID
    /// Seconds since 1970.
    package var time: Double
    /// Every card that could have run the job, in the order of their ids, as they were before it was placed.
    package var candidates: [Candidate]

    package struct Candidate: Sendable, Equatable {
        package var gpu: GPUID
        package var busyPercent: Double?
        package var temperature: Double?
        package var isStale: Bool
        /// Attempts that were bound to it, and how many may run there at once.
        package var load: Int
        package var slots: Int
        /// What placed the card; ``cacheBonus`` is taken off already.
        package var score: Double
        /// What was taken off because its cache has what the job reads.
        package var cacheBonus: Double
        /// Why it could not take the job; empty when it could.
        package var objection: String
    }

    /// One object for one line.
    package var json: JSON {
        [
            "ts": .double(time), "task_id": .string(job.text), "attempt_id": .string(attempt.text), "gpu": gpu.json,
            "candidates": .array(candidates.map(\.json)),
        ]
    }
}

extension Decision.Candidate {
    fileprivate var json: JSON {
        var object: JSONObject = ["gpu_id": gpu.json]
        object["busy_percent"] = busyPercent.map { .double($0) }
        object["temp_c"] = temperature.map { .double($0) }
        object["stale"] = .bool(isStale)
        object["load"] = .int(load)
        object["slots"] = .int(slots)
        object["score"] = .double(score)
        if cacheBonus > 0 { object["cache_bonus"] = .double(cacheBonus) }
        object["objection"] = .string(objection)
        return .object(object)
    }
}

extension SchedulerCore {
    /// What is known of the cards that could run a job of this class, before it is placed.
    func decision(_ job: JobID, _ attempt: AttemptID, to gpu: GPUID, _ placement: PlacementClass, at now: Timestamp)
        -> Decision
    {
        let keys = jobs[job]?.cacheKeys ?? []
        let candidates = candidates(for: placement).compactMap { cards[$0] }.map { card in
            let bonus = cacheBonus(of: card.id, for: keys)
            return Decision.Candidate(
                gpu: card.id,
                busyPercent: card.busyPercent,
                temperature: card.temperature,
                isStale: card.isStale(policy: policy, at: now),
                load: card.assigned.count,
                slots: card.slots,
                score: card.score(policy: policy, at: now) - bonus,
                cacheBonus: bonus,
                objection: obstacle(on: card, for: placement, at: now)
            )
        }
        return Decision(job: job, attempt: attempt, gpu: gpu, time: now.seconds, candidates: candidates)
    }

    /// Why a card cannot take a job of this class now, for a person; empty when it can.
    func obstacle(on card: Card, for placement: PlacementClass, at now: Timestamp) -> String {
        let reason = obstacle(on: card.id, for: placement, at: now)
        if !reason.isEmpty { return reason }
        if card.assigned.count >= card.capacity(policy: policy) { return "all its slots are taken" }
        return isAvoided(card.id, for: placement, at: now) ? "avoided: the last attempt failed on it" : ""
    }
}
