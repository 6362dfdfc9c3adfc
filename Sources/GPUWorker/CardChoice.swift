import GPUTelemetry
import JobTransport
import Logging
import ServiceSupport
import TaskRunner

/// Finds the device that belongs to a worker's number.
enum CardChoice {
    /// The card of the number; the processor when the machine has no card at all, which is said in the log.
    /// - Throws: ``FatalError`` of code configuration, so that a supervisor does not try again for ever.
    static func device(
        _ settings: WorkerSettings,
        _ logger: Logger
    ) async throws(FatalError) -> any WorkerDevice {
        let rules = try rules(settings.settings)
        let inventory = await inventory(rules)
        for note in inventory.notes { logger.notice("\(note)") }
        if inventory.cards.isEmpty && rules.pins[settings.number] == nil {
            logger.notice("this machine has no graphics card for jobs: they run on the processor")
            return Processor()
        }
        do throws(InventoryError) {
            let card = try inventory.card(settings.number)
            for degradation in card.degradations { logger.warning("card \(card.address): \(degradation)") }
            return graphicsCard(card, settings, logger)
        } catch {
            throw FatalError(.configuration, error.description)
        }
    }

    private static func graphicsCard(_ card: Card, _ settings: WorkerSettings, _ logger: Logger) -> GraphicsCard {
        let file = StateFile(directory: settings.logDirectory, name: "card.json")
        let (memory, notice) = CardMemory.load(file, of: card.address, bootID: ProcessTable.bootID)
        if let notice { logger.warning("\(notice)") }
        return GraphicsCard(
            card,
            memory: memory,
            allowsUnknownTemperature: settings.settings[WorkerSettings.Keys.allowUnknownTemperature],
            coolFor: settings.settings.duration(WorkerSettings.Keys.coolFor)
        )
    }

    /// What GPU_PINS and GPU_EXCLUDE say.
    static func rules(_ settings: Settings) throws(FatalError) -> InventoryRules {
        do throws(InventoryError) {
            return try InventoryRules(
                pins: settings[WorkerSettings.Keys.pins],
                exclude: settings[WorkerSettings.Keys.exclude]
            )
        } catch {
            throw FatalError(.configuration, error.description)
        }
    }

    /// Looks at the machine, off the cooperative pool: drivers may take their time.
    static func inventory(_ rules: InventoryRules) async -> CardInventory {
        await BlockingWork(label: "gpu-worker.inventory").run { CardInventory.scan(rules: rules) }
    }
}
