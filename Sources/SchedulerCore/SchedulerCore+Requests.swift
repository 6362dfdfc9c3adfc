import JobModel
import WireJSON

/// What people ask the leader for.
extension SchedulerCore {
    // MARK: cancel

    mutating func cancel(_ id: JobID, reason: String, for request: RequestToken, at now: Timestamp) {
        let reason = reason.isEmpty ? "cancelled on request" : reason
        if let job = jobs[id] {
            jobs[id]?.cancel = Job.CancelIntent(reason, request, after: job.cancel)
            advance(id, at: now)
        } else if let admission = admissions[id] {
            admissions[id]?.cancel = Job.CancelIntent(reason, request, after: admission.cancel)
        } else {
            if cancelReads[id] == nil { actions.append(.readRecord(id)) }
            cancelReads[id] = Job.CancelIntent(reason, request, after: cancelReads[id])
        }
    }

    /// Answers those who asked to cancel a job that ended, or that its worker is killing now.
    mutating func answerCancel(_ job: Job, state: JobState) {
        guard let cancel = job.cancel else { return }
        reply(to: cancel.requests, job: job.record.id, state: state)
        jobs[job.record.id]?.cancel?.requests = []
    }

    mutating func reply(to requests: [RequestToken], job: JobID, state: JobState) {
        for request in requests {
            let answer: [(String, JSON)] = [
                ("ok", true), ("task_id", .string(job.text)), ("state", .string(state.rawValue)),
            ]
            actions.append(.reply(request, .object(JSONObject(answer))))
        }
    }

    mutating func noteRead(_ id: JobID, _ revision: RecordRevision?, at now: Timestamp) {
        if let intent = cancelReads.removeValue(forKey: id) { resume(intent, of: id, revision, at: now) }
        for request in whyReads.removeValue(forKey: id) ?? [] {
            guard let record = revision?.record else {
                actions.append(.reply(request, Self.unknown(id)))
                continue
            }
            actions.append(.reply(request, Self.story(of: record)))
        }
    }

    private mutating func resume(
        _ intent: Job.CancelIntent,
        of id: JobID,
        _ revision: RecordRevision?,
        at now: Timestamp
    ) {
        if jobs[id] == nil, let revision, !revision.record.state.isTerminal { learn(revision, at: now) }
        if jobs[id] != nil || admissions[id] != nil {
            for request in intent.requests { cancel(id, reason: intent.reason, for: request, at: now) }
        } else if let revision {
            reply(to: intent.requests, job: id, state: revision.record.state)
        } else {
            createCancelled(id, intent, at: now)
        }
    }

    // MARK: why

    mutating func explain(_ id: JobID, to request: RequestToken, at now: Timestamp) {
        guard let job = jobs[id] else {
            if whyReads[id] == nil { actions.append(.readRecord(id)) }
            whyReads[id, default: []].append(request)
            return
        }
        guard case .object(var answer) = Self.story(of: job.record) else { return }
        if let hold = job.holdUntil {
            answer["reason"] = .string("the stream refused its last write; tried again in \((hold - now).inSeconds) s")
        } else if job.record.state == .retry, let due = job.retryDue {
            answer["due_in"] = .double(max(0, (due - now).inSeconds))
        } else if job.isWaiting {
            let views = candidates(for: job.placement).map { view(of: $0, for: job, at: now) }
            answer["cards"] = .array(views)
            if job.record.reason.isEmpty { answer["reason"] = .string(waitingSummary(job, at: now)) }
        }
        actions.append(.reply(request, .object(answer)))
    }

    private func waitingSummary(_ job: Job, at now: Timestamp) -> String {
        guard isServed(job.placement, at: now) else { return waitingReason(for: job.placement, at: now) }
        return "every slot of the cards that may run it is taken"
    }

    /// One card as the placement of a job sees it.
    private func view(of gpu: GPUID, for job: Job, at now: Timestamp) -> JSON {
        guard let card = cards[gpu] else {
            return ["gpu_id": gpu.json, "eligible": false, "reason": "its worker has not been heard of"]
        }
        let obstacle = obstacle(on: card, for: job.placement, at: now)
        let bonus = cacheBonus(of: gpu, for: job.cacheKeys)
        var view: JSONObject = [
            "gpu_id": gpu.json, "eligible": .bool(obstacle.isEmpty),
            "score": .double(card.score(policy: policy, at: now) - bonus), "reason": .string(obstacle),
        ]
        if !job.cacheKeys.isEmpty { view["cache_bonus"] = .double(bonus) }
        return .object(view)
    }

    private static func story(of record: JobRecord) -> JSON {
        var answer = JSONObject([
            ("ok", true), ("task_id", .string(record.id.text)), ("state", .string(record.state.rawValue)),
            ("reason", .string(record.reason)), ("tries", .int(record.tries)), ("lost", .int(record.lost)),
        ])
        if let gpu = record.gpu { answer["gpu"] = gpu.json }
        return .object(answer)
    }

    private static func unknown(_ id: JobID) -> JSON {
        refusal("unknown_job", "there is no job \(id)")
    }

    // MARK: status

    var status: JSON {
        [
            "ok": true, "qsize": .int(waitingCount), "inflight": .int(inflightCount), "gpus_alive": .int(aliveCards),
            "gpus_seen": .int(cards.count), "queue_full": .bool(isFull),
        ]
    }
}
