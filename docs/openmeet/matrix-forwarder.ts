import { Injectable, Logger, type OnModuleInit } from "@nestjs/common";
import { EventEmitter2 } from "@nestjs/event-emitter";

type Payload = Record<string, any>;
type Change = { kind: string; slug: string; user?: string; previous_slug?: string; deleted?: boolean };

const attendee = (p: Payload): Change => ({ kind: "event", slug: p.eventSlug, user: p.userSlug });
const member = (p: Payload): Change => ({ kind: "group", slug: p.groupSlug, user: p.userSlug });

/** What each event hints at: where to look. Payloads are never sent on, for they hold more than that. */
export const HINTS: Record<string, (p: Payload) => Change> = {
  "event.created": (p) => ({ kind: "event", slug: p.slug }),
  "event.updated": (p) => ({ kind: "event", slug: p.slug }),
  "event.deleted": (p) => ({ kind: "event", slug: p.event.slug, deleted: true }),
  "event.ingested": (p) => ({ kind: "event", slug: p.slug }),
  "event.ingested.updated": (p) => ({ kind: "event", slug: p.slug }),
  "event.attendee.added": attendee,
  "event.attendee.status.changed": attendee,
  "event.attendee.cancelled": attendee,
  "event.rsvp.added": attendee,
  "event.rsvp.ingested": attendee,
  "group.created": (p) => ({ kind: "group", slug: p.slug }),
  "group.updated": (p) => ({ kind: "group", slug: p.slug }),
  "group.slug.changed": (p) => ({ kind: "group", slug: p.newSlug, previous_slug: p.oldSlug }),
  "chat.group.member.add": member,
  "chat.group.member.remove": member,
  "chat.group.member.role.update": member,
  // The lines to add: see below.
  "matrix.changed": (p) => p.change,
};

@Injectable()
export class MatrixForwarder implements OnModuleInit {
  private readonly logger = new Logger(MatrixForwarder.name);

  constructor(private readonly emitter: EventEmitter2) {}

  onModuleInit(): void {
    for (const [name, hint] of Object.entries(HINTS)) {
      this.emitter.on(name, (payload: Payload) => {
        this.forward(payload.tenantId, hint(payload)).catch(() =>
          // Nothing is lost for good: everything in use is looked up every few hours.
          this.logger.warn(`${name} was not passed on`),
        );
      });
    }
  }

  private async forward(tenant: string, change: Change): Promise<void> {
    const answer = await fetch(`${process.env.MATRIX_APPSERVICE_API}/v1/tenants/${tenant}/changes`, {
      method: "POST",
      headers: {
        Authorization: `Bearer ${process.env.MATRIX_APPSERVICE_KEY}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify({ changes: [change] }),
      signal: AbortSignal.timeout(5000),
    });
    if (!answer.ok) this.logger.warn(`a hint was answered ${answer.status}`);
  }
}
